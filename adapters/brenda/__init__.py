"""The dialect ``brenda``: a French API of sessions: chat, pictures, translation."""
