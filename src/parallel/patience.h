/* A wait for other ranks, in the host's loops: it gives the core away, lets the rest move, and ends
 * when for the whole time-out nobody in the world has done anything (heartbeat.h). All Local. */
#ifndef RINGREEL_PATIENCE_H
#define RINGREEL_PATIENCE_H

#include <stdbool.h>

struct patience {
    const char *group, *what; /* for the message of whoever waits */
    int peer;                 /* -1: everyone */
    double timeout_s, looked_s;
    double quiet_s;  /* for so long nobody in the world has done anything */
    double worked_s; /* when somebody last had */
    int turn;        /* stays where the core is given away for longer */
};

struct patience patience_for(const char *group, const char *what, int peer, double timeout_s);
/* One turn of a waiting loop: background messages and messages between devices move on. */
void patience_pause(struct patience *p);
/* To be asked again and again meanwhile. */
bool patience_is_over(struct patience *p);

#endif
