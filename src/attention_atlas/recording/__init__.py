"""attention.h5 and statistics.h5: write, resume, read, validate. No other module opens these files."""

from attention_atlas.capture.roles import ROLES
from attention_atlas.recording.attention import AttentionStore, AttentionWriter
from attention_atlas.recording.axis import Axis
from attention_atlas.recording.statistics import StatisticsStore, StatisticsWriter

__all__ = ["ROLES", "AttentionStore", "AttentionWriter", "Axis", "StatisticsStore", "StatisticsWriter"]
