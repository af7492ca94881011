"""otsd, the one time service daemon: links that run one Home Assistant action, at most so often.

::

     visitor                                     owner, programs         Home Assistant
        | POST /                                    | control socket        | MQTT command
        v                                           v                       v
     server.visitor                              server.api  <-- cli     mqtt.commands
        |                                           |                       |
        v                                           v                       |
     core.submit -- 1 claim a use ------> store  core.manage <--------------+
                 -- 2 run the action ---> home      |
                 -- 3 settle -----------> store     +--> store
                 -- 4 announce ---------> outbox in the store --> core.announce --> home
        |                                           |
        +---- "something changed" ------------------+--> mqtt.projection, read anew from the store

Read ``core.submit``, then ``core.ports``, then whichever arrow is of interest.
"""

__version__ = "0.1.0"
