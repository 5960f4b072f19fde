/* Signs of work. Some waits are legitimately long: a codec rank waits while a shot is denoised for
 * an hour. A stopped or deadlocked job must still be noticed. So every rank tells rank 0 every few
 * seconds that it has *done* something since it last said so, rank 0 tells everybody that somebody
 * has, and a wait fails only when for the whole time-out nobody anywhere has done anything.
 * Waiting is not doing. All functions are Local. */
#ifndef RINGREEL_HEARTBEAT_H
#define RINGREEL_HEARTBEAT_H

void heartbeat_start(void); /* after MPI_Init; without it the others do nothing */
void heartbeat_stop(void);
void heartbeat_set_interval(double seconds);

/* Work was done: a piece of an operation, a step, a tensor read, a message taken. Cheap: call it
 * wherever work is polled and between the parts of long work. */
void heartbeat_worked(void);
/* heartbeat_worked, as what a device polls (device_set_poll); where that waits for another rank it
 * is not work. */
void heartbeat_poll(void *unused);
/* For waiting loops: passes on and takes in the signs of others. */
void heartbeat_listen(void);
/* When anybody is known to have done something last (clock_s). */
double heartbeat_last_work_s(void);

#endif
