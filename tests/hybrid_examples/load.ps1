# Load regular model (exclusive - unloads others)
Invoke-RestMethod -Uri "http://127.0.0.1:8000/models/load" `
  -Method Post -ContentType 'application/json' `
  -Body '{"model_key":"qwen/qwen3-4b-2507","exclusive":true}'
