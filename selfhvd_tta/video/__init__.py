"""Video files in and out: PyAV and numpy, no torch.

``opening.open_reader`` and ``open_writer`` give the reader and the writer for a path. ``reader.VideoReader`` delivers
frames in RGB or as luma, by seeking too. ``writer.VideoWriter`` encodes frames into closed segments (``segments``),
muxes them with everything else that the source holds (``joining``, ``streams``, ``conversion``), verifies the file
(``verify``) and only then puts it in place (``target``). ``shots`` finds hard cuts, ``images`` reads and writes folders
of images, ``passthrough`` hands a video on as it is.

What comes out as it went in: number, order and times of the frames, size, coded orientation and its tag, sample aspect
ratio, bit depth, chroma subsampling, colour tags, HDR10 metadata, sound, subtitles, chapters and tags. What an encoder
or a container cannot hold is said in the writer's ``notes``.

Limits: chroma location is known from PyAV 19 on only (else the default of H.264 is taken); codes beyond the nominal
range of limited-range video are clipped; per-frame HDR metadata (HDR10+, Dolby Vision), closed captions inside the
video stream and 360-degree tags are lost, with a note; video flagged interlaced is refused without ``progressive``.
"""
