/* `ringreel compare A B`: how far two renders are apart, for people who doubt one. On one rank and
 * without MPI; memory does not grow with the length of a video. */
#ifndef RINGREEL_COMPARE_H
#define RINGREEL_COMPARE_H

/* The words after "compare". Prints to stdout what was found, to stderr what is wrong with the
 * input; returns the exit code: 0 the same, 1 different, 2 the input is wrong. */
int compare_command(int argc, char **argv);

#endif
