# Créer job
JOB_ID=$(curl -s -X POST http://localhost:8009/generate \
  -H "Content-Type: application/json" \
  -d '{"prompt": "test image", "model": "sdxl-base"}' \
  | jq -r '.job_id')

echo "Job ID: $JOB_ID"

# Attendre 30s
sleep 30

# Tenter download (devrait être en cours = 202)
curl -v http://localhost:8009/image/$JOB_ID

# Attendre 4 minutes
sleep 240

# Download final (devrait être 200 OK)
curl http://localhost:8009/image/$JOB_ID -o test.png
file test.png  # Devrait afficher: PNG image data, 1024 x 1024
