curl -N -X POST http://127.0.0.1:8000/chat/vision/stream \
  -H "Content-Type: application/json" \
  -d '{
    "messages": [
      {
        "role": "user",
        "content": "Describe this image in detail",
        "images": [{
          "data_base64": "<BASE64_ENCODED_IMAGE>",
          "mime_type": "image/jpeg"
        }]
      }
    ]
  }'
