"""otsd, the one time service daemon: links that run one Home Assistant action, at most so often.

::

     visitor                                     owner, programs
        | POST /                                    | control socket
        v                                           v
     server.visitor                              server.api  <-- cli
        |                                           |
        v                                           v
     core.submit -- 1 claim a use ------> store  core.manage --> store
                 -- 2 run the action ---> home
                 -- 3 settle -----------> store
                 -- 4 announce ---------> outbox in the store --> core.announce --> home

Read ``core.submit``, then ``core.ports``, then whichever arrow is of interest.
"""

__version__ = "0.1.0"
