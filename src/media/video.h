/* Frames out through FFmpeg's libraries: MP4/MKV/MOV/WebM with any encoder the library has, or a
 * PNG sequence. Written beside the final name (NAME.part-PID.EXT) and renamed when whole; on any
 * error or signal nothing stands under the final name. (Of a PNG sequence each frame is such a
 * file, and whole frames stay.) Missing folders are made. */
#ifndef RINGREEL_VIDEO_H
#define RINGREEL_VIDEO_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct video_writer;

struct video_settings {
    const char *path; /* "clip.mp4", "still.png"; "frames/%06d.png": one PNG a frame, from 0 on */
    /* "libx264", or "auto" (also NULL): libx264, libvpx-vp9 for .webm, png for .png. */
    const char *encoder;
    /* "crf=18:preset=slow" as in `ffmpeg -h encoder=NAME`, and pix_fmt. NULL or "": our defaults,
     * which aim at high quality; RGB encoders (ffv1, libx264rgb, png) are then lossless. */
    const char *encoder_options;
    int bit_depth; /* 8 or 10 */
    int width, height;
    double frame_rate; /* 23.976 and the like mean 24000/1001 */
    int threads;       /* of the encoder, 0: its choice; bytes may depend on it, pictures not */
    int64_t frames;    /* how many will come, 0: not known; "still.png" refuses more than one */
};

/* Checks everything that can be checked before hours of rendering: encoder exists and takes these
 * sizes and depth, its options are known, the container takes the codec, the folder is writable.
 * STATUS_INPUT with the cause and what is allowed. Leaves no file behind. */
int video_check(const struct video_settings *s);

int video_open(struct video_writer **out, const struct video_settings *s);
int video_write(struct video_writer *w, const uint8_t *rgb); /* [height][width][3] */
/* Flush, trailer, fsync, rename; frees w whatever happens. */
int video_finish(struct video_writer *w);
/* Removes the partial file; frees w. This or video_finish also follows a failed video_write. */
void video_abandon(struct video_writer *w);
/* Removes partial files of this process: async-signal-safe, for the signal handler. */
void video_remove_partial_files(void);

const char *media_versions(void);    /* "libavcodec 59.37.100, libavformat ..." */
void media_list_encoders(FILE *out); /* one line each: name, bit depths, containers, description */

#endif
