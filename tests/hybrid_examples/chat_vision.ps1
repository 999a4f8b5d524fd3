$imageBytes = [System.IO.File]::ReadAllBytes("path\to\image.jpg")
$base64 = [System.Convert]::ToBase64String($imageBytes)

$body = @{
  messages = @(
    @{
      role = "user"
      content = "Describe this image"
      images = @(
        @{
          data_base64 = $base64
          mime_type = "image/jpeg"
        }
      )
    }
  )
  config = @{temperature=0.7; maxTokens=256}
} | ConvertTo-Json -Depth 10

Invoke-RestMethod -Uri "http://127.0.0.1:8000/chat/vision" `
  -Method Post -ContentType 'application/json' -Body $body
