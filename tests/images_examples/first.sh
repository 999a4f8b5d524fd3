# 1. Créer une génération
curl -X POST http://localhost:8009/generate \
  -H "Content-Type: application/json" \
  -d '{"prompt": "a beautiful sunset", "model": "sdxl-base"}' \
  | jq -r '.job_id'

# Réponse: 7f2b0887-3cdf-46ff-b83b-ff7685ac5b23

# 2. Récupérer l'image directement (polling)
curl http://localhost:8009/image/7f2b0887-3cdf-46ff-b83b-ff7685ac5b23 \
  --output sunset.png

# Si en cours (202):
# {"status":"processing","message":"Image en cours de génération","state":"PROGRESS"}

# Si terminé (200):
# [BINARY PNG DATA] → sunset.png
