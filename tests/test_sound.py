"""Recordings: pictures of them and back, as domains, and what a run leaves to be heard."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny
from scipy.io import wavfile

from huscf_flwr.cli import main
from huscf_flwr.data.format import ImageFormat, SoundFormat
from huscf_flwr.data.sound import picture_of, save_wav, waves_of
from huscf_flwr.data.sources import find_sources, kind_of, read_domain
from huscf_flwr.errors import UserError
from huscf_flwr.nets.generator import load_generator
from simulations.engine import Engine

RATE, SOUND = 8000, SoundFormat(8000, 0.5)
TONES = {"high": 2000.0, "low": 400.0}


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    wave = np.sin(2 * np.pi * hertz * np.arange(len(noise)) / rate) + 0.01 * noise
    return (wave / 2 * 32767).astype(np.int16)


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """Ten recordings of each of two tones, in folders."""
    for name, hertz in TONES.items():
        (tmp_path / "tones" / name).mkdir(parents=True)
        for take in range(10):
            file = tmp_path / "tones" / name / f"{take}.wav"
            wavfile.write(file, RATE, tone(hertz, seed=take))
    return tmp_path / "tones"


def frequency(wave: np.ndarray, rate: int = RATE) -> float:
    """The strongest one, in hertz."""
    strength = np.abs(np.fft.rfft(wave))
    return float(np.fft.rfftfreq(len(wave), 1 / rate)[strength.argmax()])


def test_a_picture_shows_when_and_how_high(tmp_path: Path) -> None:
    """Half a second of a tone, then a higher one, then silence: low is at the bottom."""
    wave = np.concatenate([tone(400, 0.2), tone(2000, 0.2)])
    wavfile.write(tmp_path / "a.wav", RATE, wave)
    picture = picture_of(tmp_path / "a.wav", 32, SOUND)
    assert picture.shape == (32, 32) and picture.dtype == np.uint8 and picture.max() == 255
    rows = picture.argmax(axis=0)
    assert len({*rows[2:10]}) == 1 and len({*rows[15:23]}) == 1
    assert rows[5] > rows[18] + 5 and picture[:, 29:].max() < 60
    # Recorded at another rate, and in stereo, it is the same picture.
    both = np.stack([np.concatenate([tone(400, 0.2, 16000), tone(2000, 0.2, 16000)])] * 2, axis=1)
    wavfile.write(tmp_path / "b.wav", 16000, both)
    other = picture_of(tmp_path / "b.wav", 32, SOUND)
    assert (rows[2:23] == other.argmax(axis=0)[2:23]).mean() > 0.9


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("hertz", TONES.values())
def test_pictures_sound_like_what_they_are_of(tmp_path: Path, hertz: float, size: int) -> None:
    wavfile.write(tmp_path / "a.wav", RATE, tone(hertz))
    picture = picture_of(tmp_path / "a.wav", size, SOUND)
    (wave,) = waves_of(picture[None], SOUND)
    assert len(wave) / RATE == pytest.approx(0.5, abs=0.03)
    assert frequency(wave) == pytest.approx(hertz, rel=0.08)
    assert np.array_equal(wave, waves_of(picture[None], SOUND)[0])
    save_wav(wave[None], tmp_path / "b.wav", SOUND)
    again = picture_of(tmp_path / "b.wav", size, SOUND)
    apart = np.abs(again.argmax(axis=0) - picture.argmax(axis=0).astype(int))
    assert (apart[2:-2] <= 1).mean() > 0.95
    assert np.isfinite(waves_of(np.zeros((1, size, size), np.uint8), SOUND)).all()


@pytest.mark.parametrize("size", [8, 16, 128])
@pytest.mark.parametrize("seconds", [0.005, 0.05, 4.0])
def test_pictures_of_any_size_and_length(tmp_path: Path, size: int, seconds: float) -> None:
    wavfile.write(tmp_path / "a.wav", RATE, tone(400))
    sound = SoundFormat(RATE, seconds)
    picture = picture_of(tmp_path / "a.wav", size, sound)
    assert picture.shape == (size, size) and np.isfinite(waves_of(picture[None], sound)).all()


def test_what_is_no_sound_is_named(tmp_path: Path) -> None:
    for rate, seconds in ((0, 1.0), ("8000", 1.0), (8000, 0.0), (8000, 1e9), (8000, float("nan"))):
        with pytest.raises(UserError, match="sound-"):
            SoundFormat(rate, seconds)  # type: ignore[arg-type]
    wavfile.write(tmp_path / "a.wav", RATE, np.full(4000, np.nan, np.float32))
    with pytest.raises(ValueError, match="no numbers"):
        picture_of(tmp_path / "a.wav", 16, SOUND)


def test_a_folder_of_recordings_is_a_domain(tones: Path) -> None:
    (source,) = find_sources(str(tones), "", data_root="data", download=False)
    assert kind_of(source).classes == ("high", "low") and kind_of(source).channels == 1
    found = read_domain(source, ImageFormat(16, 1, 2, SOUND))
    assert found.train.images.shape == (16, 1, 16, 16) and len(found.test) == 4
    brightest = found.train.images.float().mean(dim=(1, 3)).argmax(dim=1)
    assert (brightest[found.train.labels == 0] < brightest[found.train.labels == 1].min()).all()
    with pytest.raises(UserError, match=r"is a recording: set sound-seconds"):
        read_domain(source, ImageFormat(16, 1, 2))
    (tones / "low" / "x.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"not readable .*low/x\.wav"):
        read_domain(source, ImageFormat(16, 1, 2, SoundFormat(RATE, 0.25)))


def test_a_check_says_how_a_run_takes_recordings(
    tones: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wavfile.write(tones / "low" / "10.wav", RATE, tone(400, 0.75))
    assert main(["data", "check", str(tones)]) == 0
    found = capsys.readouterr().out
    assert "21 recordings of 0.50 to 0.75 s, at 8000 samples a second" in found
    (keys,) = re.findall(r"domains=\S+ (.*)", found)
    assert keys == "sound-seconds=0.50 sound-rate=8000 image-size=32 channels=1 num-classes=2"
    assert main(["data", "convert", str(tones), "--out", str(tones / "x.npz")]) == 1
    assert "a run takes recordings as they are" in capsys.readouterr().err
    (tones / "low" / "x.wav").write_bytes(b"RIFF")
    assert main(["data", "check", str(tones)]) == 1
    assert "low/x.wav: cannot be read as a recording" in capsys.readouterr().err


def test_a_run_can_be_heard(tones: Path, tmp_path: Path, few_steps: None) -> None:
    config = tiny(
        domains="tones", num_classes=2, sound_seconds=0.5, num_server_rounds=1, output_dir="out"
    )
    run = Engine(config, str(tmp_path)).run()
    page = (run / "report.html").read_text()
    heard = re.findall(r'<audio controls src="data:audio/wav;base64,([^"]*)"', page)
    assert len(heard) == 2  # generated, and real
    for content, name in zip(heard, ("cluster-0", "real-tones"), strict=True):
        assert base64.b64decode(content) == (run / "samples" / f"{name}.wav").read_bytes()
        rate, wave = wavfile.read(run / "samples" / f"{name}.wav")
        assert rate == RATE and len(wave) / rate == pytest.approx(2 * 0.5, abs=0.15)
    file = run / "generator-cluster-0.safetensors"
    assert load_generator(file).sound == SOUND
    out = tmp_path / "low.wav"
    main(["generate", str(file), "-n", "3", "--label", "1", "--seed", "0", "--out", str(out)])
    rate, wave = wavfile.read(out)
    assert rate == RATE and len(wave) / rate == pytest.approx(3 * 0.5, abs=0.15)
    checkpoint = sorted((run / "checkpoints").glob("*.safetensors"))[-1]
    main(
        ["generate", str(checkpoint), "-n", "3", "--label", "1", "--seed", "0", "--out", str(out)]
    )
    assert np.array_equal(wave, wavfile.read(out)[1])
    main(["evaluate", str(file), "--data", str(tones), "--n", "100"])
    assert json.loads((run / "summary.json").read_text())["domains"]["tones"]["utility"]
