"""One result, for programs (``json``) and for people (``console``); progress while it is made."""
