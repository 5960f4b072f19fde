/* Frames out through FFmpeg's libraries: MP4/MKV/MOV/WebM with any encoder the library has, or a
 * PNG sequence. Encoders work in threads of their own, several at a time where one cannot keep up.
 * Written beside the final name (NAME.part-PID.EXT) and renamed when whole; on any error or signal
 * nothing stands under the final name. (Of a PNG sequence each frame is such a file, and whole
 * frames stay.) Missing folders are made. */
#ifndef RINGREEL_VIDEO_H
#define RINGREEL_VIDEO_H

#include <stdbool.h>
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
    int bit_depth; /* 8, 10 or 16 */
    /* What the samples mean, in FFmpeg's words ("bt2020", "smpte2084", "bt2020nc"; range "limited"
     * or "full"). NULL or "auto": BT.709, sRGB's curve in .png, limited range in Y'CbCr. */
    const char *color_primaries, *color_transfer, *color_matrix, *color_range;
    int width, height;
    double frame_rate; /* 23.976 and the like mean 24000/1001 */
    int64_t frames;    /* how many will come, 0: not known; "still.png" refuses more than one */
    /* Of a sequence: the number of the first picture, and from one to the next (0 is 1). */
    int64_t first, step;
    int segment_frames; /* frames that one encoder makes, then another; 0: by the size */
    /* Encoders at work at a time, 0: by the threads that there are for them. Bytes depend on
     * neither. */
    int encoders, threads;
    /* Or NULL. Called while encoders are waited for; have they done something since? */
    void (*idle)(void *argument, bool worked);
    void *idle_argument;
};

/* Checks everything that can be checked before hours of rendering: encoder exists and takes these
 * sizes and depth, its options are known, the container takes the codec, the folder is writable.
 * STATUS_INPUT with the cause and what is allowed. Leaves no file behind. */
int video_check(const struct video_settings *s);

int video_open(struct video_writer **out, const struct video_settings *s);
/* rgb: [height][width][3], of uint8_t, or of uint16_t (0 to 65535) where bit_depth is above 8. It
 * is encoded in other threads: an error may be that of a frame before. */
int video_write(struct video_writer *w, const void *rgb);
/* Flush, trailer, fsync, rename; frees w whatever happens. */
int video_finish(struct video_writer *w);
/* Removes the partial file; frees w. This or video_finish also follows a failed video_write. */
void video_abandon(struct video_writer *w);
/* Removes partial files of this process: async-signal-safe, for the signal handler. */
void video_remove_partial_files(void);

/* About how much a writer takes while it is open. */
int64_t video_memory(const struct video_settings *s);
bool video_is_sequence(const char *path); /* one file a frame? */

const char *media_versions(void);    /* "libavcodec 59.37.100, libavformat ..." */
void media_list_encoders(FILE *out); /* one line each: name, bit depths, containers, description */

#endif
