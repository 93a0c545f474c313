"""What sseclient does by itself with what stands after the last empty line when a stream ends."""

import json
import sys

import requests
import sseclient

route, url, token = sys.argv[1:]
response = requests.get(url, headers={"authorization": f"Bearer {token}"}, stream=True)
for block in sseclient.SSEClient(response).events():
    print(json.dumps({"route": route, "kind": block.event, "data": block.data}), flush=True)
print(json.dumps({"route": route, "kind": "ended", "data": None}), flush=True)
sys.stdin.read()
