"""What a run did, as one HTML page that needs nothing else: no file beside it and no network."""

from selfhvd_tta.extras.report.log import Recorder, RunLog
from selfhvd_tta.extras.report.page import need_extra, report_file, write_report

__all__ = ["Recorder", "RunLog", "need_extra", "report_file", "write_report"]
