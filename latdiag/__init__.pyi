from latdiag.api import compare_runs as compare_runs
from latdiag.api import diagnose_run as diagnose_run
from latdiag.api import import_run as import_run
from latdiag.api import open_run as open_run
from latdiag.api import run_load as run_load
from latdiag.api import run_probe as run_probe
from latdiag.diagnosis.compare import Comparison as Comparison
from latdiag.diagnosis.result import Breakdown as Breakdown
from latdiag.diagnosis.result import Result as Result
from latdiag.diagnosis.result import Share as Share
from latdiag.diagnosis.result import Verdict as Verdict
from latdiag.load.wire.transport import StampedTransport as StampedTransport
from latdiag.model.caveat import Caveat as Caveat
from latdiag.model.errors import Interrupted as Interrupted
from latdiag.model.errors import LatdiagError as LatdiagError
from latdiag.stats.estimate import Estimate as Estimate
from latdiag.store.run import Run as Run

__version__: str
