"""Recordings as pictures that a run trains on, and pictures as sound again.

A picture is a log-mel spectrogram: a row for each band of frequencies, the lowest at the bottom, a
column for each moment; brightness is loudness, relative to the loudest moment of the recording.
Phases are not in it: some that fit are found by Griffin and Lim's algorithm ("Signal Estimation
from Modified Short-Time Fourier Transform", 1984), as fast as Perraudin, Balazs and Søndergaard's
("A Fast Griffin-Lim Algorithm", 2013).
"""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from huscf_flwr.data.format import SoundFormat

SUFFIX = ".wav"
_RANGE_DB = 80.0  # from black to white
_LEAST_WINDOW = 512
_ITERATIONS, _MOMENTUM = 60, 0.99  # of Griffin and Lim's algorithm
_NOTHING = 1e-10


def is_recording(file: Path) -> bool:
    """By its suffix."""
    return file.suffix.lower() == SUFFIX


def length_of(file: Path) -> tuple[float, int]:
    """How many seconds a recording lasts, and its samples a second.

    Raises
    ------
    Exception: whatever SciPy raises of a file that it cannot read.
    """
    from scipy.io import wavfile  # here, as SciPy is slow to import, and images do without

    rate, samples = wavfile.read(file)
    return len(samples) / rate, rate


def picture_of(file: Path, size: int, sound: SoundFormat) -> np.ndarray:
    """A recording's picture, uint8 (size, size).

    Silence follows where it is shorter than a picture; what is longer is cut.

    Raises
    ------
    Exception: whatever SciPy raises of a file that it cannot read.
    """
    hop, window = _steps(size, sound)
    wave = _read(file, sound.rate)[: hop * (size - 1)]  # of which as many moments are taken
    wave = np.pad(wave, (0, hop * (size - 1) - len(wave)))
    power = _bands(size, window, sound.rate) @ np.abs(_spectrum(wave, hop, window)) ** 2
    level_db = 10 * np.log10(np.maximum(power, _NOTHING) / max(power.max(), _NOTHING))
    shade = np.clip(level_db / _RANGE_DB + 1, 0, 1) if power.max() > _NOTHING else 0 * level_db
    picture: np.ndarray = np.flipud(shade * 255).round().astype(np.uint8)
    return picture


def waves_of(pictures: np.ndarray, sound: SoundFormat) -> np.ndarray:
    """What pictures, uint8 (n, size, size), sound like: float32 (n, samples) in [-1, 1].

    The same pictures always sound the same, and each is as loud as can be.
    """
    size = pictures.shape[1]
    hop, window = _steps(size, sound)
    # What each frequency has of each band, so that the bands come out as they were.
    to_frequencies = np.linalg.pinv(_bands(size, window, sound.rate))
    waves = []
    for picture in pictures:
        shade = np.flipud(picture) / 255.0
        power = np.where(shade > 0, 10 ** ((shade - 1) * _RANGE_DB / 10), 0)
        strength = np.sqrt(np.maximum(to_frequencies @ power, 0))
        wave = _with_phases(strength, hop, window)
        waves.append(wave / max(np.abs(wave).max(), _NOTHING))
    return np.stack(waves).astype(np.float32)


def save_wav(waves: np.ndarray, path: Path, sound: SoundFormat) -> None:
    """Sounds (n, samples) in [-1, 1], one after the other, as a file of 16 bits.

    Raises
    ------
    OSError: it cannot be written.
    """
    from scipy.io import wavfile

    wavfile.write(path, sound.rate, (waves.reshape(-1) * 32767).round().astype(np.int16))


def _read(file: Path, rate: int) -> np.ndarray:
    """A recording at this rate, of one channel, about from -1 to 1."""
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    own_rate, samples = wavfile.read(file)
    wave = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        wave -= 128
    if samples.dtype.kind in "iu":
        wave /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    if wave.ndim > 1:
        wave = wave.mean(axis=1)
    if own_rate != rate:
        common = math.gcd(own_rate, rate)
        wave = resample_poly(wave, rate // common, own_rate // common)
    if not np.isfinite(wave).all():
        raise ValueError("some of its values are no numbers")
    found: np.ndarray = wave
    return found


def _steps(size: int, sound: SoundFormat) -> tuple[int, int]:
    """Samples from moment to moment, and those that a moment is made of."""
    hop = max(1, round(sound.rate * sound.seconds / size))
    window = max(_LEAST_WINDOW, 2 ** (4 * hop - 1).bit_length())
    longest = 2 ** ((hop * (size - 1)).bit_length() - 1)  # no more than there are
    return hop, min(window, longest)


@functools.cache
def _bands(size: int, window: int, rate: int) -> np.ndarray:
    """How much of each frequency is in each band, (size, window // 2 + 1).

    Bands overlap, and are as wide as each other in mel, which is how people hear.
    """
    frequencies = np.fft.rfftfreq(window, 1 / rate)
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, size + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    bands = np.maximum(0, np.minimum(rising, falling))
    nearest = np.abs(frequencies - middle).argmin(axis=1)
    empty = np.flatnonzero(bands.sum(axis=1) == 0)  # narrower than frequencies are apart
    bands[empty, nearest[empty]] = 1
    return bands


def _transform(hop: int, window: int) -> dict[str, Any]:
    return {"nperseg": window, "noverlap": window - hop}


def _spectrum(wave: np.ndarray, hop: int, window: int) -> np.ndarray:
    """Complex (window // 2 + 1, moments)."""
    from scipy.signal import stft

    found: np.ndarray = stft(wave, **_transform(hop, window))[2]
    return found


def _with_phases(strength: np.ndarray, hop: int, window: int) -> np.ndarray:
    """A wave whose spectrum is about as strong as this, (window // 2 + 1, moments)."""
    from scipy.signal import istft

    random = np.random.default_rng(0)
    phases = np.exp(2j * np.pi * random.random(strength.shape))
    before = np.zeros_like(phases)
    for _ in range(_ITERATIONS):
        wave = istft(strength * phases, **_transform(hop, window))[1]
        now = _spectrum(wave[: hop * (strength.shape[1] - 1)], hop, window)
        ahead = now + _MOMENTUM * (now - before)
        phases, before = ahead / np.maximum(np.abs(ahead), _NOTHING), now
    found: np.ndarray = istft(strength * phases, **_transform(hop, window))[1]
    return found[: hop * (strength.shape[1] - 1)]
