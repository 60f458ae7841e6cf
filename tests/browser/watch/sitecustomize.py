"""Every Python process that a tested server starts loads this (PYTHONPATH): it writes down what it asks of the web.

Only what is beyond this computer counts: names that are looked up, and addresses that are connected or sent to.
"""

import ipaddress
import os
import socket
import sys

LOG = os.environ["AFFECTVLM_TEST_WATCH"]
OWN = {"", "localhost", socket.gethostname()}


def _is_here(host) -> bool:
    host = host.decode() if isinstance(host, bytes) else host
    if host is None or host in OWN:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _judge(event: str, details: tuple) -> None:
    if event == "socket.getaddrinfo":
        host = details[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(details[1], tuple):  # a text is a local socket
        host = details[1][0]
    else:
        return
    if not _is_here(host):
        with open(LOG, "a", encoding="utf-8") as file:
            file.write(f"{event} {host} by {' '.join(sys.argv)}\n")


sys.addaudithook(_judge)
