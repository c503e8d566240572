"""How long the two sides of a round wait for each other."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Timing"]


@dataclass(frozen=True)
class Timing:
    """All waits of a round, for driver and ranks: it travels in the invitation.

    Attributes:
        patience_s: With enough ranks to begin, how long to wait for the others.
        arrive_s: A new executor's first task takes a while to get here. When none comes in this
            time, there is none left for it.
        say_after_s: Who waits for slots should know it soon,
        say_every_s: and not read it all the time.
        tick_s: Longest wait for one message, before something else is looked at.
        look_s: How often at least to look for what nobody says.
        pulse_s: How often a rank says that it lives.
        calm_ranks: More ranks than this say it less often, so that the driver can listen to all.
        silent_s: A rank without a sign of life for so long is stopped, or its host is gone.
        missed_pulses: So many signs of life may be missing before that counts as silence.
        stall_bytes_per_s: A message of many bytes may pause for longer: so many more bytes, one
            more second. It counts from the last byte that moved.
        own_gap_s: The driver itself may have slept; nobody could be heard then.
        last_words_s: How long the last words of an ended task may take to arrive.
        first_offer_s: After a loss, how long a survivor may take to offer its state.
        offers_s: After the first offer, how long to wait for others, who may hold a newer state.
        give_s: How long a survivor that was asked may take to begin to send its state.
        notice_s: A rank that is told to stop has a moment to see it, then it is interrupted,
        repeat_s: again and again: where nothing may be cut off it is not heard.
        ignore_s: A rank that still goes on after this ends its process.
        unwind_s: After a loss or an error, how long ranks may take to come to their ends.
        exit_s: The same after a round in which all was well.
        last_s: How long to wait for tasks when nothing comes after this round.
        again_s: Between rounds tasks end by themselves, a lost one too that Spark starts again
            where a survivor has just ended. To cancel one would end its Python process, which the
            next round can use.
        close_s: How long either side waits for a thread that reads a closed connection.
    """

    patience_s: float = 5.0
    arrive_s: float = 10.0
    say_after_s: float = 3.0
    say_every_s: float = 10.0
    tick_s: float = 0.2
    look_s: float = 1.0
    pulse_s: float = 1.0
    calm_ranks: int = 64
    silent_s: float = 15.0
    missed_pulses: float = 5.0
    stall_bytes_per_s: float = 50e6
    own_gap_s: float = 5.0
    last_words_s: float = 2.0
    first_offer_s: float = 90.0
    offers_s: float = 3.0
    give_s: float = 300.0
    notice_s: float = 1.0
    repeat_s: float = 0.3
    ignore_s: float = 8.0
    unwind_s: float = 3.0
    exit_s: float = 10.0
    last_s: float = 0.5
    again_s: float = 3.0
    close_s: float = 5.0

    def pause_s(self, ranks: int) -> float:
        """Between two signs of life of one of so many ranks."""
        return self.pulse_s * max(1.0, ranks / self.calm_ranks)

    def silence_s(self, ranks: int) -> float:
        """After how much silence one of so many ranks counts as lost."""
        return max(self.silent_s, self.missed_pulses * self.pause_s(ranks))

    def stall_s(self, size: int) -> float:
        """How long a message of so many bytes may stand still on its way."""
        return self.silent_s + size / self.stall_bytes_per_s
