$body = @{
  messages = @(
    @{role="system"; content="You are helpful."}
    @{role="user"; content="What is 2+2?"}
  )
  config = @{temperature=0.7; maxTokens=100}
} | ConvertTo-Json -Depth 10

Invoke-RestMethod -Uri "http://127.0.0.1:8000/chat/regular" `
  -Method Post -ContentType 'application/json' -Body $body
