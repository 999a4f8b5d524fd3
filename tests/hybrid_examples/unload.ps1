# Unload specific model
Invoke-RestMethod -Uri "http://127.0.0.1:8000/models/unload" `
  -Method Post -ContentType 'application/json' `
  -Body '{"model_key":"qwen/qwen3-4b-2507"}'

# Unload all models
Invoke-RestMethod -Uri "http://127.0.0.1:8000/models/unload" `
  -Method Post -ContentType 'application/json' `
  -Body '{"unload_all":true}'
