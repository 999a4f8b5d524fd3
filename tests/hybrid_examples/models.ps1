Invoke-RestMethod -Uri "http://127.0.0.1:8000/models" -Method Get
