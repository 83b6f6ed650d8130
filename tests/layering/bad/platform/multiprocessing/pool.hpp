// SPDX-License-Identifier: BSL-1.0
#pragma once
#if defined __linux__
#endif
