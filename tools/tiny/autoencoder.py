"""The stage "vae": the official CausalVideoAutoencoder learns to pass clips of the world through 128 numbers
for each 32 x 32 pixels of 8 frames."""

import copy

import numpy as np
import torch

from fixtures.vae import config as vae_config, decoder_095, res

from . import world

# The decoder's list runs from the pixels to the latents, so most blocks work where edges are drawn.
ENCODER_BASE, DECODER_BASE = 16, 16
DECODER_LAYERS = (3, 3, 2, 1)
TAU, NOISE = 0.05, 0.025           # what a render uses: decode_timestep and decode_noise_scale
TAU_MOST = 0.3
POSTERIOR = -7.0                   # logarithm of its variance: a deviation of 0.03
CROPS = (                          # share of the steps, clips, frames, height, width
    (0.20, 12, 1, 128, 128), (0.38, 6, 9, 96, 96), (0.22, 3, 17, 96, 96), (0.12, 3, 17, 64, 128),
    (0.08, 2, 33, 64, 96))
HELD_OUT = 990_000                 # seeds from here on are never trained on


def config():
    down = [res(1), ["compress_space_res", {"multiplier": 2}], res(1), ["compress_time_res", {"multiplier": 1}],
            res(1), ["compress_all_res", {"multiplier": 2}], res(1), ["compress_all_res", {"multiplier": 2}], res(1)]
    cfg = vae_config(down, decoder_095(DECODER_LAYERS), True, DECODER_BASE, 128)
    cfg["encoder_base_channels"] = ENCODER_BASE
    return cfg


def build():
    from ltx_video.models.autoencoders.causal_video_autoencoder import CausalVideoAutoencoder
    vae = CausalVideoAutoencoder.from_config(copy.deepcopy(config()))
    vae.decoder.timestep_scale_multiplier.requires_grad_(False)
    return vae


@torch.no_grad()
def wake(vae, x):
    """First weights from data: each convolution's output gets mean 0 and a chosen deviation. With the usual first
    weights nearly all that reaches the latents is the same for every clip, and learning waits long for the rest."""
    from ltx_video.models.autoencoders.causal_conv3d import CausalConv3d
    spread = {}
    for name, module in vae.named_modules():
        if isinstance(module, CausalConv3d):
            spread[module] = 0.3 if name.endswith(("conv2", "decoder.conv_out")) else 1.0

    def settle(module, _, out):
        mean = out.mean(dim=(0, 2, 3, 4))
        gain = spread[module] / out.std(dim=(0, 2, 3, 4)).clamp(min=1e-4)
        conv = module.conv
        conv.weight *= gain.view(-1, 1, 1, 1, 1)
        conv.bias.copy_((conv.bias - mean) * gain)
        return (out - mean.view(1, -1, 1, 1, 1)) * gain.view(1, -1, 1, 1, 1)

    hooks = [module.register_forward_hook(settle) for module in spread]
    z = vae.encode(x).latent_dist.mean
    vae.decode(z, target_shape=x.shape, timestep=torch.full((len(x),), TAU, device=x.device))
    for hook in hooks:
        hook.remove()
    vae.encoder.conv_out.conv.weight[-1] = 0
    vae.encoder.conv_out.conv.bias[-1] = POSTERIOR


def pixels(clips, device="cpu"):
    """uint8 [F, H, W, 3] clips -> [B, 3, F, H, W] in -1…1."""
    stacked = torch.from_numpy(np.stack(clips)).to(device)
    return stacked.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def batch(seed, step, smoke=False):
    pick = np.random.default_rng([seed, 1, step])
    odds = np.array([c[0] for c in CROPS])
    _, clips, frames, height, width = CROPS[pick.choice(len(CROPS), p=odds / odds.sum())]
    if smoke:
        clips, frames, height, width = 1, 9, 64, 64
    return np.stack([world.crop(pick, width, height, frames) for _ in range(clips)])


class Scale(torch.nn.Module):
    """Running mean and deviation of each latent channel: noise is measured in these units."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(128))
        self.register_buffer("square", torch.ones(128))
        self.register_buffer("steps", torch.zeros(()))

    def update(self, z):
        self.steps += 1
        keep = 1 - 1 / min(float(self.steps), 400.0)
        values = z.detach().transpose(0, 1).flatten(1)
        self.mean.lerp_(values.mean(1), 1 - keep)
        self.square.lerp_((values ** 2).mean(1), 1 - keep)

    def shape(self):
        std = (self.square - self.mean ** 2).clamp(min=1e-8).sqrt()
        return self.mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)


def add_noise(z, mean, std, amount):
    """As the pipeline does before it decodes, in normalised units; amount [B]."""
    s = amount.view(-1, 1, 1, 1, 1)
    return mean + (1 - s) * (z - mean) + s * std * torch.randn_like(z)


def train_loss(vae, scale, x):
    posterior = vae.encode(x).latent_dist
    z = posterior.mean
    scale.update(z)
    mean, std = scale.shape()
    tau = torch.rand(x.shape[0], device=x.device) ** 2 * TAU_MOST
    noisy = add_noise(z, mean, std, tau * (0.5 + 0.5 * torch.rand_like(tau)))
    out = vae.decode(noisy, target_shape=x.shape, timestep=tau).sample
    error = out - x
    mse, absolute = error.square().mean(), error.abs().mean()
    # The decode noise does what sampling the posterior would do, in the units that matter. So that an encoder
    # which samples stays close to its mean, the posterior is told to be narrow, and the latents to be near 1.
    size = z.square().mean().clamp(min=1e-8).log()
    width = (posterior.logvar[:, :1] - POSTERIOR).square().mean()
    loss = mse + 0.1 * absolute + 1e-3 * size.square() + 1e-4 * width
    return loss, {"mse": mse.detach(), "absolute": absolute.detach(), "rms": size.detach().exp() ** 0.5,
                  "posterior": posterior.std.mean().detach()}


def held_out(count, frames=17, size=(128, 128)):
    return [world.render(world.draw_scene(np.random.default_rng(HELD_OUT + k), size, frames)) for k in range(count)]


@torch.no_grad()
def psnr(vae, mean, std, clips):
    """dB for each clip, decoded as a render decodes."""
    device = next(vae.parameters()).device
    out = []
    for k, clip in enumerate(clips):
        x = pixels([clip], device)
        z = vae.encode(x).latent_dist.mean
        torch.manual_seed(k)
        z = add_noise(z, mean, std, torch.full((1,), NOISE, device=device))
        y = vae.decode(z, target_shape=x.shape, timestep=torch.full((1,), TAU, device=device)).sample
        error = ((y.clamp(-1, 1) - x) / 2).square().mean()
        out.append(float(-10 * torch.log10(error)))
    return out


@torch.no_grad()
def encode(vae, clip):
    """uint8 [F, H, W, 3] -> [f, h, w, 128], not normalised."""
    x = pixels([clip], next(vae.parameters()).device)
    return vae.encode(x).latent_dist.mean[0].permute(1, 2, 3, 0).contiguous()


@torch.no_grad()
def decode(vae, statistics, latents, seed=0):
    """Normalised [B, 128, f, h, w] -> uint8 [B, F, H, W, 3]."""
    device = latents.device
    mean, std = (statistics[k].to(device).view(1, -1, 1, 1, 1) for k in ("mean", "std"))
    torch.manual_seed(seed)
    z = (1 - NOISE) * latents + NOISE * torch.randn_like(latents)
    out = [vae.decode(row[None] * std + mean, target_shape=1,
                      timestep=torch.full((1,), TAU, device=device)).sample for row in z]
    video = (torch.cat(out).clamp(-1, 1) + 1) * 127.5
    return video.permute(0, 2, 3, 4, 1).to(torch.uint8).cpu().numpy()
