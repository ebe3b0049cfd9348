"""gripwire_recorder: what happens on the bus becomes LeRobot episodes.

Between `StartEpisode` and `StopEpisode` every camera slot, ``robot/state`` and ``robot/action`` are aligned
on true capture times to one rate (10 rows a second unless ``[recorder] fps`` says otherwise) and written as
a LeRobot v3.0 dataset under ``datasets/NAME``. Row i stands for one moment; it has

- ``observation.images.<cam>``: the picture taken nearest to it (video, H.264)
- ``observation.state``: the six joints at it, interpolated; ``action``: the goal in force at it (the last one
  really sent; before the first, and while the arm is limp, the state). Both float32 (6,), LeRobot's units,
  ``shoulder_pan.pos`` ... ``gripper.pos``
- ``gripwire.<cam>.t_capture`` int64: when the picture was taken, CLOCK_MONOTONIC ns
- ``gripwire.<cam>.seq`` int64: the ``seq`` of its message on ``camera/<cam>``
- ``gripwire.<cam>.exposure`` int64: the camera's own number of the exposure, -1 if it gives none
- ``gripwire.<cam>.skew_ms`` float32: how much later than its row the picture was taken
- and LeRobot's own ``timestamp`` (i / fps), ``frame_index``, ``episode_index``, ``index``, ``task_index``

``meta/gripwire.jsonl`` has a line per episode: ``episode``, ``rows``, ``session`` (one id per run of the
recorder), ``task``, ``host``, ``started`` (wall clock, s), ``t_start`` (CLOCK_MONOTONIC ns), ``drops``
(messages lost, by topic), ``worst_skew_ms``, ``unreadable`` (pictures that did not decode) and ``problem``
(e.g. a silent camera).

Promises: an episode that is reported saved is durable (fsync) and opens in LeRobot; nothing saved is ever
touched again, whatever happens to the recorder (store.py says how); every row's picture is the one its
columns name.

On the topic ``episode``: ``recording`` while an episode is recorded, even if an earlier one is still being
saved (``rows`` grows, twice a second); else ``saving`` while anything is not yet durable (then ``problem``
says why it does not get on, e.g. a full disk); else ``idle``, with the figures of the last episode.
``saved`` counts the episodes that became durable since the recorder started. An episode that could not be
saved is an ``idle`` message with ``problem`` and an unchanged ``saved``.
"""
