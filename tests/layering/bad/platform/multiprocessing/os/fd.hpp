// SPDX-License-Identifier: BSL-1.0
#pragma once
#ifdef __linux__
#endif
