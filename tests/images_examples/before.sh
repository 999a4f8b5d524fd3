# 1. Créer job
JOB_ID=$(curl -X POST .../generate -d '...' | jq -r '.job_id')

# 2. Attendre + récupérer filename
FILENAME=$(curl .../status/$JOB_ID | jq -r '.result.filename')

# 3. Télécharger
curl .../download/$FILENAME -o image.png
