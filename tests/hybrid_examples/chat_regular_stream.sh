curl -N -X POST http://127.0.0.1:8000/chat/regular/stream \
  -H "Content-Type: application/json" \
  -d '{
    "messages": [
      {"role": "user", "content": "Explain quantum physics in one sentence"}
    ]
  }'
