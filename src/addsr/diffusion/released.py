"""Where the released inference differs from the papers, by sampler: `--compat released`. D³SR was never released."""

from addsr.diffusion.lockstep import InStep, Lockstep

RELEASED_PSR_WEIGHT = 0.4  # the command's own option never reached the released pipeline
RELEASED_TILES = {"addsr": 320, "ancestral": 96}  # latents
RELEASED_AUTOENCODER = {  # SeeSR cuts its encoder too, in pixels
    "addsr": InStep(decoder=Lockstep(224, 11)),
    "ancestral": InStep(decoder=Lockstep(224, 11), encoder=Lockstep(1024, 32)),
}
