"""What all tests rely on."""

import signal

# A shell starts what it runs in the background with Ctrl-C ignored, and processes pass that on. Tests that
# press Ctrl-C in a process of their own need it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
