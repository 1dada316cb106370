"""The tasks of the leaderboard as plain data.

A task is never edited: a change of any of its numbers is a new SUITE_VERSION. A change of how rows are computed from a task is
a new SCORER_VERSION. Either makes every published row stale. Everything else iterates over TASKS, so that an entry here is all
that a new task needs.

A task has at most 256 replications, see `measuring`. Its warm-up is at least the time after which the model forgets its start,
and warm-up and decisions make the 95 % half-width of the best baseline at most 0.5 % of its mean (of its share of the bound,
where every replication draws an instance of its own).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matchgym.envs.instance import InputError, unknown
from matchgym.envs.registry import Entry, find

SUITE_VERSION = "2"
SCORER_VERSION = "2"
LOOKS = (16, 64, 256)  # replications after which a row may stop
QUICK = 20  # a quick board takes this many times fewer decisions, and 16 replications


@dataclass(frozen=True, kw_only=True)
class Task:
    """An instance, the length of its simulation, and what its scores are measured between."""

    name: str
    id: str
    instance: str  # name in the catalogue of the model
    sha256: str  # of the instance
    warmup: int  # decisions per replication
    decisions: int  # counted decisions per replication
    seed: int  # public, for practice; replication b is seeded with seed + b
    note: str  # one sentence for the page
    bound_kind: str  # the kind of bound whose value is the score 1
    anchor: str = "greedy"  # the policy whose score is 0
    replications: int = LOOKS[-1]

    @property
    def entry(self) -> Entry:
        """The registry's entry of the environment."""
        return find(self.id)

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of replications after which a row may stop, the last one being all."""
        return (*(look for look in LOOKS if look < self.replications), self.replications)

    def load(self) -> Any:
        """The instance. Raises InputError if it is no longer the one that the task was made with."""
        instance = self.entry.model.load(self.instance)
        if instance.sha256 != self.sha256:
            raise InputError(
                f"instance {self.instance} has sha256 {instance.sha256[:12]}..., but task {self.name} was frozen with "
                f"{self.sha256[:12]}...; restore the instance or make a new task."
            )
        return instance

    def quick(self) -> "Task":
        """The same task at a fraction of the length, for trying things out."""
        if self.entry.model.episode is not None:  # an episode is played to its end
            return dataclasses.replace(self, replications=LOOKS[0])
        shorter = {"warmup": self.warmup // QUICK, "decisions": max(10, self.decisions // QUICK)}
        return dataclasses.replace(self, replications=min(self.replications, LOOKS[0]), **shorter)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)


TASKS = (
    Task(
        name="demo",
        id="StationaryMatching-v0",
        instance="demo",
        sha256="f96a850af3d28fd829ad1c0db1e2596c062c876994996466aad798474139fd60",
        warmup=2_000,
        decisions=10_000,
        seed=7_000_000,
        note=("Two supplier types and three customer types; reward-greedy wastes suppliers, and the exact optimum is known."),
        bound_kind="tlp-online",
    ),
    Task(
        name="random-3x4",
        id="StationaryMatching-v0",
        instance="random-3x4",
        sha256="2c83db35602b967afc5f5b83a503b8c74946e7f492dbc00dd1a6a97a251fd91e",
        warmup=2_000,
        decisions=10_000,
        seed=7_010_000,
        note="Random rates and rewards, small enough for the exact optimum.",
        bound_kind="tlp-online",
    ),
    Task(
        name="b5-10",
        id="StationaryMatching-v0",
        instance="b5-10",
        sha256="b0c6468e8dc3f4382c146656299b0a486b9487e4de0710b3c0f5bfa373830f45",
        warmup=2_000,
        decisions=100_000,
        seed=7_020_000,
        note=(
            "A trap for policies that follow a wasteful solution of the linear programme. Reward-greedy, which "
            "never matches for nothing, is optimal here, so that scores count from random instead."
        ),
        bound_kind="tlp-online",
        anchor="random",
    ),
    Task(
        name="b5eps-10",
        id="StationaryMatching-v0",
        instance="b5eps-10",
        sha256="8ac20d65bb57fe54472f8a7c76a9dc6c1e4df14d164c8d8fd06e2c204af9da09",
        warmup=2_000,
        decisions=100_000,
        seed=7_030_000,
        note="The same trap with small rewards in place of zeros, so that it catches reward-greedy too.",
        bound_kind="tlp-online",
    ),
    Task(
        name="organ-abo",
        id="StationaryMatching-v0",
        instance="organ-abo",
        sha256="468d4e1902e8678a70cef13033a79a7c5a1c068ac1d65d38f61dff90f3889020",
        warmup=5_000,
        decisions=15_000,
        seed=7_040_000,
        note=(
            "Livers and patients of four blood groups and two urgencies; rates from published transplant "
            "statistics, benefits stylised."
        ),
        bound_kind="tlp-online",
    ),
    Task(
        name="ride-hailing-5x5",
        id="StationaryMatching-v0",
        instance="ride-hailing-5x5",
        sha256="83263a405f5487a8d1c68d2339e407f573c1c6f6fff20f67da76c39804a162a3",
        warmup=3_000,
        decisions=11_000,
        seed=7_050_000,
        note="Idle drivers and riders on a grid of 25 zones; all numbers stylised.",
        bound_kind="tlp-online",
    ),
    Task(
        name="random-40x40",
        id="StationaryMatching-v0",
        instance="random-40x40",
        sha256="aeb70da10ad106ad78f66737e5ff838a8871ce8d51f72cae0cfacb688853c086",
        warmup=10_000,
        decisions=35_000,
        seed=7_060_000,
        note="Random rates and rewards with half of the pairs incompatible.",
        bound_kind="tlp-online",
    ),
    Task(
        name="general-demo",
        id="GeneralMatching-v0",
        instance="demo",
        sha256="735122f4c026b5d3cab6561f4856a58b0140541863c821154ea2a399943b2fff",
        warmup=2_000,
        decisions=6_000,
        seed=7_070_000,
        note=(
            "Three types on a triangle; greedy matching wastes the partners of the better matches, and the exact "
            "optimum is known."
        ),
        bound_kind="tlp-joint",
    ),
    Task(
        name="general-two-sides",
        id="GeneralMatching-v0",
        instance="two-sides-2x2",
        sha256="407ca39e047ab77a646f91f56bfcac6342ee5e99d331d885ca55b14e4e387ba9",
        warmup=2_000,
        decisions=6_000,
        seed=7_080_000,
        note="Two supplier and two customer types who all wait; the exact optimum is known.",
        bound_kind="tlp-joint",
    ),
    Task(
        name="general-kidney",
        id="GeneralMatching-v0",
        instance="kidney-abo",
        sha256="f884f9aa6bffd0ba0fb84388adc5d043ff9f615a0d1be2259ba982ec0425fb5d",
        warmup=6_000,
        decisions=20_000,
        seed=7_090_000,
        note=(
            "Two-way kidney exchange between sixteen kinds of patient-donor pairs; rates from published "
            "statistics, stays stylised."
        ),
        bound_kind="tlp-joint",
    ),
    Task(
        name="general-random-30",
        id="GeneralMatching-v0",
        instance="random-30",
        sha256="39602f8a30c6270046ca0d37a8e95e2ded97d61bf423cbd500eb7cd37d84bc28",
        warmup=2_000,
        decisions=10_000,
        seed=7_100_000,
        note="Thirty types on a random graph with three in ten pairs compatible.",
        bound_kind="tlp-joint",
    ),
    Task(
        name="queues-hard",
        id="MatchingQueues-v0",
        instance="hard-0.9",
        sha256="d309b70a784abea0459860a7dd0f77b701344fcf36a73732287644c65097a954",
        warmup=2_000,
        decisions=6_000,
        seed=7_110_000,
        note="The paper's hard instance: one queue, three customer types; the exact optimum is known.",
        bound_kind="priced",
    ),
    Task(
        name="queues-duo",
        id="MatchingQueues-v0",
        instance="duo",
        sha256="d8ba48c3f84da9445abe4fc9198d3db2afb26435e21bd6b63c06949ec19c20f7",
        warmup=2_000,
        decisions=6_000,
        seed=7_120_000,
        note=("Two queues and three customer types, of which the scarce queue is the cheap one; the exact optimum is known."),
        bound_kind="priced",
    ),
    Task(
        name="queues-couriers",
        id="MatchingQueues-v0",
        instance="couriers",
        sha256="8cec18ad659a35d63e4b046f486c80927f02e520b6e1aaaf84a55ecbaa8d5c94",
        warmup=5_000,
        decisions=10_000,
        seed=7_130_000,
        note="Couriers and meal orders in five districts on a line; all numbers stylised.",
        bound_kind="priced",
    ),
    Task(
        name="queues-random-40",
        id="MatchingQueues-v0",
        instance="random-40x40",
        sha256="dc0907921a7e9cba3a99b11a71d9a14153aa3cd82230aa773e1ef7bdde455f98",
        warmup=10_000,
        decisions=10_000,
        seed=7_140_000,
        note="Forty queues and forty customer types with random rates and costs.",
        bound_kind="priced",
    ),
    Task(
        name="euclid-corners",
        id="EuclideanMatching-v0",
        instance="corners",
        sha256="bf5ea45a91f8821bc66c449e5c76330fa724a942fdf6d76b30417460b82defef",
        warmup=2_000,
        decisions=6_000,
        seed=7_150_000,
        note="Two suppliers at opposite corners of the square and three customers; the exact optimum is known.",
        bound_kind="priced",
    ),
    Task(
        name="euclid-line",
        id="EuclideanMatching-v0",
        instance="line",
        sha256="2f85a87704a710ae36bbfcadef7cc6691f790b7038a13d58d48a6343c205071e",
        warmup=2_000,
        decisions=6_000,
        seed=7_160_000,
        note="Two clusters on a line with a gap between them; the exact optimum is known.",
        bound_kind="priced",
    ),
    Task(
        name="euclid-plane",
        id="EuclideanMatching-v0",
        instance="plane-12x12",
        sha256="0b5622b04101f1ffe5f51aae7b1e65f6f31d1a047eabc0c587df6925b5d858b2",
        warmup=2_000,
        decisions=6_000,
        seed=7_170_000,
        note="Twelve places of suppliers and twelve of customers, uniform on the square.",
        bound_kind="priced",
    ),
    Task(
        name="euclid-town",
        id="EuclideanMatching-v0",
        instance="town",
        sha256="285e1d604f482f3388e0c8f5d117438c4811aeadd957dcb7f4882d7433719636",
        warmup=6_000,
        decisions=8_000,
        seed=7_180_000,
        note="Couriers and restaurants in a town with three centres; all numbers stylised.",
        bound_kind="priced",
    ),
    Task(
        name="locality-pair",
        id="DataLocality-v0",
        instance="toy",
        sha256="83082b47b40e43ab0ca04c36e1a9301a739277be3afdeb10f4b8512a22587540",
        warmup=2_000,
        decisions=10_000,
        seed=7_190_000,
        note=(
            "One dispatcher, two equal servers: no policy beats the queue M/M/2, which joining the shorter queue "
            "almost attains."
        ),
        bound_kind="tightest-any",
        anchor="jsq-d",
    ),
    Task(
        name="locality-small",
        id="DataLocality-v0",
        instance="small",
        sha256="1d4fac4a9acaac1bc2b39691626ea6802c7b538e7831c143d94fb3698f760a70",
        warmup=4_000,
        decisions=10_000,
        seed=7_200_000,
        note="Three servers of two speeds on a ring.",
        bound_kind="tightest-any",
        anchor="jsq-d",
    ),
    Task(
        name="locality-paper",
        id="DataLocality-v0",
        instance="paper-100",
        sha256="16a0da0140ae5f747820d8abab01338f4c34659d8048f22b16941202b02869c1",
        warmup=10_000,
        decisions=20_000,
        seed=7_210_000,
        note="The paper's system with a hundred servers of three types, on the random graph that makes it stable.",
        bound_kind="tightest-any",
        anchor="jsq-d",
    ),
    Task(
        name="locality-cluster",
        id="DataLocality-v0",
        instance="cluster-200-irg",
        sha256="9d0ce1d9325fce2fee474b49032bbc362b26add83f5ad85fe327f1fc374b4456",
        warmup=10_000,
        decisions=20_000,
        seed=7_220_000,
        note="A computing cluster of 200 machines whose 400 dispatchers keep data on one in five of them.",
        bound_kind="tightest-any",
        anchor="jsq-d",
    ),
    Task(
        name="learning-tables",
        id="CongestionLearning-v0",
        instance="tables",
        sha256="1356d2d9013287e8a422b4c6f7ecbb753fd03f64b620977be477c65d416bb2bb",
        warmup=0,
        decisions=1_000,
        seed=7_230_000,
        note="The paper's base case with a fixed matrix of rewards that resembles its Tables 1-3.",
        bound_kind="oracle",
        anchor="random",
    ),
    Task(
        name="learning-base",
        id="CongestionLearning-v0",
        instance="base",
        sha256="cd4969442dc2628d26982de82c46b78504e4d4744d191ca66177af905f65b839",
        warmup=0,
        decisions=1_000,
        seed=7_240_000,
        note=("The paper's base case: rewards are drawn anew in every episode, and every replication has its own bound."),
        bound_kind="oracle",
        anchor="random",
    ),
    Task(
        name="learning-random",
        id="CongestionLearning-v0",
        instance="random-3x5",
        sha256="d7a2c75b62410192ea7ee198cb60f99c7b5ff1c40f4227b59b6517c78c59d55a",
        warmup=0,
        decisions=1_000,
        seed=7_250_000,
        note="Three job types and five servers, three in ten pairs incompatible.",
        bound_kind="oracle",
        anchor="random",
    ),
    Task(
        name="learning-healthcare",
        id="CongestionLearning-v0",
        instance="healthcare",
        sha256="b5d896932f01bc8430876d0ad0f1bffc6c13a7aad1fa9467927e46f17b452025",
        warmup=0,
        decisions=1_000,
        seed=7_260_000,
        note="Twelve cardiologists, minor and severe patients, rewards in CNY; prices and scores are made up.",
        bound_kind="oracle",
        anchor="random",
    ),
    Task(
        name="floating-toy",
        id="FloatingClients-v0",
        instance="toy",
        sha256="530cf087298123045ec2c118f8adfd0e337a48ba4d88f4cd85ce4fdff8a22637",
        warmup=0,
        decisions=200,
        seed=7_270_000,
        note="One server that always succeeds and one that never does; rewards are fixed.",
        bound_kind="oracle",
        anchor="random",
    ),
    Task(
        name="floating-paper",
        id="FloatingClients-v0",
        instance="floating-0.1",
        sha256="85092140dbd62e280e03cf71ba37270f10e459f53d5c6514b7bbf03db9837363",
        warmup=0,
        decisions=1_000,
        seed=7_280_000,
        note=("The paper's setting: clients come with their own unknown rewards, and every replication has its own bound."),
        bound_kind="oracle",
        anchor="random",
    ),
    Task(
        name="floating-slow",
        id="FloatingClients-v0",
        instance="floating-0.01",
        sha256="72c3db14f14e87ce452fb6428201e40f7b9d75e053cd223fbc96531e227f35e2",
        warmup=0,
        decisions=1_000,
        seed=7_290_000,
        note="The paper's setting with clients who stay ten times as long.",
        bound_kind="oracle",
        anchor="random",
    ),
    Task(
        name="floating-crowd",
        id="FloatingClients-v0",
        instance="crowd",
        sha256="6a329bbfed2d72660d0478e2b689d95c8eba06bb6455620c58fd97196ea737bc",
        warmup=0,
        decisions=1_000,
        seed=7_300_000,
        note="Thirty clients of three types and forty servers.",
        bound_kind="oracle",
        anchor="random",
    ),
)


def find_task(name: str, tasks: Sequence[Task] = TASKS) -> Task:
    """The task of that name; InputError for an unknown one."""
    for task in tasks:
        if task.name == name:
            return task
    raise unknown("task", name, [task.name for task in tasks])
