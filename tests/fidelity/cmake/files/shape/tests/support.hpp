#pragma once

bool near(double a, double b);
