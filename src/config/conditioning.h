/* The value of the setting `conditioning`: a list of maps. */
#ifndef RINGREEL_CONDITIONING_H
#define RINGREEL_CONDITIONING_H

#include "config/settings.h"

/* `node` is a sequence; `list` starts empty. As setting_from_node. */
bool conditioning_from_node(struct conditioning *list, struct text_pool *texts,
                            const struct yaml_doc *doc, const struct yaml_node *node,
                            struct setting_problem *problem);
void conditioning_print(FILE *out, const struct conditioning *list);

#endif
