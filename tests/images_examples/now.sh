# 1. Créer job
JOB_ID=$(curl -X POST .../generate -d '...' | jq -r '.job_id')

# 2. Télécharger direct (retry jusqu'à 200 OK)
while ! curl -f .../image/$JOB_ID -o image.png; do sleep 5; done
