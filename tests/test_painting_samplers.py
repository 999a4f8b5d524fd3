"""The names of samplers: known as people write them, without torch; what each becomes is in test_painting_torch."""

import subprocess
import sys

import pytest

from backends.diffusers.samplers import SAMPLERS, known, own


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Euler a", "euler_a"),
        ("euler_a", "euler_a"),
        ("EULER", "euler"),
        ("k_euler_ancestral", "euler_a"),
        ("DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("dpm++_2m_karras", "dpmpp_2m_karras"),
        ("DPM++ 2M SDE", "dpmpp_2m_sde"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde_exponential"),
        ("DPM++ SDE Karras", "dpmpp_sde_karras"),
        ("DPM2 a", "dpm2_a"),
        ("UniPC", "unipc"),
        ("uni_pc", "unipc"),
        ("PLMS", "pndm"),
        ("Euler SGM Uniform", "euler_sgm_uniform"),
        ("Euler Uniform", "euler"),
        ("Euler Automatic", "euler"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
        ("EulerAncestralDiscreteScheduler", "euler_a"),
        ("EulerDiscrete", "euler"),
        ("PNDMScheduler", "pndm"),
        ("", None),
        ("karras", None),
        ("Euler a Karras", None),  # diffusers has no such thing
        ("x" * 100_000, None),
    ],
)
def test_a_sampler_is_known_as_people_write_it(written, meant):
    assert known(written) == meant


def test_every_name_is_its_own_spelling():
    assert [known(name) for name in SAMPLERS] == list(SAMPLERS)


def test_a_models_own_sampler_is_read_from_its_configuration():
    assert own({"_class_name": "EulerDiscreteScheduler"}) == "euler"
    assert own({"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}) == "euler_a"
    sde = {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}
    assert own(sde) == "dpmpp_2m_sde_karras"
    assert own({"_class_name": "DDPMScheduler"}) == "ddim"
    assert own({"_class_name": "SomebodysScheduler"}) == own({}) == "euler"


def test_the_names_need_no_torch():
    code = (
        "import sys; import backends.diffusers.samplers; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
