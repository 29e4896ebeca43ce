#include "canvas.hpp"

void Canvas::add(const shape::Shape &shape)
{
    shapes.push_back(&shape);
}

double Canvas::covered() const
{
    double sum = 0;
    for (const auto *shape : shapes) {
        sum += shape->area();
    }
    return sum;
}
