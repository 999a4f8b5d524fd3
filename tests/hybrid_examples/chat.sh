curl -X POST http://127.0.0.1:8000/chat \
  -H "Content-Type: application/json" \
  -d '{
    "model_key": "my-custom-model",
    "messages": [
      {"role": "user", "content": "Hello!"}
    ]
  }'
