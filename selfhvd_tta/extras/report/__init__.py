"""What a run did, as one HTML page that needs no other file and no network."""

from selfhvd_tta.extras.report.log import Recorder, RunLog
from selfhvd_tta.extras.report.page import need_extra, report_file, write_report

__all__ = ["Recorder", "RunLog", "need_extra", "report_file", "write_report"]
