curl -v http://localhost:8009/image/invalid-job-id
# Devrait retourner 404 Not Found
