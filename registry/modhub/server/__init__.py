"""The hub as a server: any client of the Hugging Face Hub protocol, and people with a browser.

Needs the extra `modhub[server]`. `serve` runs it, `create_app` is the ASGI application alone, `Accounts` the
users and tokens of a store, server or not. See docs/hub.md.
"""
