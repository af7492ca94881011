"""A real Home Assistant, a real broker and otsd, to look at and to test with.

    provision        installs Home Assistant into a cache folder, once per machine
    home_assistant   runs it, set up and with an owner
    broker           runs mosquitto
    running          the demo: all of it together in a temporary folder, and its end
    process          processes that end with the one that started them
    config           what the demo's Home Assistant is configured with
    actions.yaml     what its links can do

It installs nothing outside of the cache folder and touches no Home Assistant, broker or otsd that
is there already.
"""
