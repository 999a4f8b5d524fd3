JOB_ID=$(curl -s -X POST http://localhost:8009/generate \
  -H "Content-Type: application/json" \
  -d '{
    "prompt": "cute anime character",
    "model": "pony-xl-v6",
    "loras": [{"name": "style-anime", "weight": 0.75}],
    "steps": 30,
    "seed": 42
  }' | jq -r '.job_id')

# Attendre et télécharger
while ! curl -f -o pony_test.png http://localhost:8009/image/$JOB_ID; do
  echo "En cours..."
  sleep 5
done

echo "✅ Téléchargé: pony_test.png"
