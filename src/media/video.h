/* Frames out through FFmpeg's libraries: MP4/MKV/MOV/WebM with any encoder the library has, or a PNG sequence.
 * Written beside the final name (NAME.part-PID.EXT) and renamed when whole; on any error or signal nothing stands under
 * the final name. */
#ifndef RINGREEL_VIDEO_H
#define RINGREEL_VIDEO_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct video_writer;

struct video_settings {
    const char *path;            /* "clip.mp4"; a name with a %d pattern such as "frames/%06d.png": image sequence */
    const char *encoder;         /* "libx264", or "auto": libx264 for video containers, png for .png */
    const char *encoder_options; /* "crf=18:preset=slow" or NULL */
    int bit_depth;               /* 8 or 10 */
    int width, height;
    double frame_rate;
    int threads;                 /* of the encoder, 0 = its choice; bytes may depend on it, decoded frames do not */
    int64_t frames;              /* how many will come, 0 = not known; lets video_check refuse many into one .png */
};

/* Checks everything that can be checked before hours of rendering: encoder exists and takes these sizes and depth, its
 * options are known, the container takes the codec, the folder exists and is writable. STATUS_INPUT with the cause and
 * what is allowed. Leaves no file behind. */
int video_check(const struct video_settings *s);

int video_open(struct video_writer **out, const struct video_settings *s);
int video_write(struct video_writer *w, const uint8_t *rgb); /* [height][width][3] */
int video_finish(struct video_writer *w);  /* flush, trailer, fsync, rename; frees w whatever happens */
void video_abandon(struct video_writer *w); /* removes the partial file; frees w */
/* Removes partial files of this process: async-signal-safe, for the signal handler. */
void video_remove_partial_files(void);

const char *media_versions(void); /* "libavcodec 59.37.100, libavformat ..." */
void media_list_encoders(FILE *out); /* one line each: name, bit depths, containers, description */

#endif
