/* Signs of life. Some waits are legitimately long: a codec rank waits while a shot is denoised for an hour. A hung peer
 * must still be noticed, so every rank sends rank 0 a byte every few seconds while it works or waits, and rank 0 sends
 * one to everybody; a patient wait fails only when the peer it depends on has gone quiet.
 * All functions are Local. */
#ifndef RINGREEL_HEARTBEAT_H
#define RINGREEL_HEARTBEAT_H

void heartbeat_start(void); /* after MPI_Init; without it the others do nothing */
void heartbeat_stop(void);
void heartbeat_set_interval(double seconds);
/* Sends one if it is time, takes in those that arrived. Cheap: call it wherever work is polled. */
void heartbeat(void);
/* When world rank `peer` last gave a sign (clock_s). Ranks other than 0 hear only rank 0, so for them every peer counts
 * as rank 0. peer -1 on rank 0: the quietest rank. *rank: whose sign it is. */
double heartbeat_last_s(int peer, int *rank);

#endif
