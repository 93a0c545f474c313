"""Runs the snippet beside it on every route of the command line, each in a thread, and prints what it hears."""

import json
import os
import sys
import threading

from snippet import follow

writing = threading.Lock()


def start(route, url, token):
    def hear(kind, data):
        # The data goes out as it came: if that is no JSON, neither is the line.
        line = '{"route":%s,"kind":%s,"data":%s}\n' % (json.dumps(route), json.dumps(kind), data)
        with writing:
            os.write(1, line.encode())

    threading.Thread(target=follow, args=(url, token, hear), daemon=True).start()


routes = sys.argv[1:]
for at in range(0, len(routes), 3):
    start(*routes[at : at + 3])
sys.stdin.read()
