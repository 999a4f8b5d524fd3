curl -X POST http://127.0.0.1:8000/chat/vision \
  -H "Content-Type: application/json" \
  -d '{
    "messages": [
      {
        "role": "user",
        "content": "What is in this image?",
        "images": [{
          "data_base64": "<BASE64_ENCODED_IMAGE>",
          "mime_type": "image/jpeg"
        }]
      }
    ],
    "config": {
      "temperature": 0.6,
      "maxTokens": 200
    }
  }'
