curl -X POST http://127.0.0.1:8000/chat/regular \
  -H "Content-Type: application/json" \
  -d '{
    "messages": [
      {"role": "system", "content": "You are a helpful assistant."},
      {"role": "user", "content": "What is 2+2?"}
    ],
    "config": {
      "temperature": 0.7,
      "maxTokens": 100
    }
  }'
