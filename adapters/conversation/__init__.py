"""The dialect ``conversation``: conversations that the server keeps."""
