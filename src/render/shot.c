#include "render/shot.h"

#include "base/error.h"

/* The official front end pads sizes up to whole latents and crops the decoded video back (pipeline
 * spec 1.1). */
static int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

int shot_prepare(struct shot *s, int number, const struct shot_options *o,
                 const struct scheduler_config *scheduler, int time_factor, int space_factor)
{
    *s = (struct shot){
        .number = number, .options = o, .time_factor = time_factor, .space_factor = space_factor};
    s->height = round_up(o->height, space_factor);
    s->width = round_up(o->width, space_factor);
    s->frames = round_up(o->num_frames - 1, time_factor) + 1;
    s->h = s->height / space_factor;
    s->w = s->width / space_factor;
    s->f = (s->frames - 1) / time_factor + 1;
    s->tokens = s->f * s->h * s->w;
    s->top = (s->height - o->height) / 2;
    s->left = (s->width - o->width) / 2;
    s->first_frame = o->frames.first;
    s->written = (o->frames.last < 0 ? o->num_frames : o->frames.last + 1) - s->first_frame;
    if (s->first_frame + s->written > o->num_frames)
        return error_set(STATUS_INPUT,
                         "shot %d: frames: frame %d is outside the video; it has frames 0 to %d",
                         number + 1, o->frames.last, o->num_frames - 1);
    int status = schedule_for_shot(&s->schedule, scheduler, o, s->tokens);
    for (int i = 0; status == STATUS_OK && i < s->schedule.count; i++)
        s->uses_negative |=
            schedule_value(&o->guidance_scale, &o->guidance_timesteps, s->schedule.sigma[i]) > 1.0;
    return status;
}
