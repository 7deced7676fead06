"""What all tests rely on."""

import signal

import pytest

# A shell starts what it runs in the background with Ctrl-C ignored, and processes pass that on. Tests that
# press Ctrl-C in a process of their own need it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def user_data(tmp_path_factory):
    """Nothing that a test measures is kept among the user's own measurements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("user-data")))
        yield
